"""The report on records: tables, figures, protocols and one page that shows them all.

`page.write_report` writes it. Everything is made from records alone, and nothing here imports torch.
"""
