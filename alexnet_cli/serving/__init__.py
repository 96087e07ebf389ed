"""The page of `alexnet serve`: a server on this machine, and the HTML, style and scripts that it sends."""
