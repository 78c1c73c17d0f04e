"""Where the proxy keeps, for a while, what a request cannot say by itself."""
