"""The pages of policies: the editor and its curve."""
