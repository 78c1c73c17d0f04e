"""What the command line does with tool definitions: read, grade, import and pin them. Nothing here serves."""
