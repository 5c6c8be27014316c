"""The glyph families: images of characters, drawn from font packages that pip installs."""
