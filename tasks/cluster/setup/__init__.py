"""Setting hosts up: files from templates, in steps that look, plan, change and look again."""
