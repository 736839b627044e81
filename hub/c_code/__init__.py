"""An agent as one dependency-free C header; :func:`hub.c_code.header.build_c_header` writes it."""
