"""Sans-I/O codecs: bytes in, events out; the words of each protocol stay in here."""
