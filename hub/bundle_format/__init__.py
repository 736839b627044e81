"""The files of a bundle, one module per kind of content; :mod:`hub.bundle` is the way in.

Reading needs no torch up to the weights (`bundle_folder`, `manifest`, `spaces`, `normalizer_file`,
`tensor_file`): the runtime and the Hub look into bundles, too. docs/bundle_format.md is the format.
"""
