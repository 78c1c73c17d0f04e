"""What is judged and changed in a request before the provider sees it: hosted tools, tools, results."""
