"""The carbon-intensity providers, one module each: which questions they are asked, what their answers mean."""
