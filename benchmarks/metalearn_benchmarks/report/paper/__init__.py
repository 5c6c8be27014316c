"""The paper's figures redrawn from our records, and its table values beside ours."""
