"""What looking inside hybrid and mixture-of-experts decoders costs."""
