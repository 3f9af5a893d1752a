"""The web server: access, routes, and updates to open tabs."""
