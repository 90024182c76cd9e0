"""The HTTP server: routes as a table, one inference path, access, counting."""
