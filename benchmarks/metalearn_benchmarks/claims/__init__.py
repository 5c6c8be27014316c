"""The paper's claims, its published numbers, and verdicts on the claims from records.

`paper/claims.toml` states the claims and the rules that decide them; `verdicts.decide_all` applies them.
"""
