"""The HTTP side: listening, routes, bodies, and the way to the thread that scores."""
