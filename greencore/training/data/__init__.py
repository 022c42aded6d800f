"""From rows to tokens: prompt formats, chat templates, special tokens, positions, packing."""
