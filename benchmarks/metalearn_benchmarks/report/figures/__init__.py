"""The figures of a setting: methods compared, scores and costs, and what each trained rule does."""
