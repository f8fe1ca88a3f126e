"""Pure computation: arrays in, arrays out. Knows neither Ray nor SQL nor the command line."""
