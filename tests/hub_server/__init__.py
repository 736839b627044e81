"""A Hub that runs on this machine: the HTTP API that ``huggingface_hub`` uploads to and reads from.

It stands in for huggingface.co in the tests: ``python -m hub_server --root FOLDER`` from the folder
``tests``. Repositories are bare git repositories, large files are stored as git LFS objects.

Left out, each with the answer a client gets: pull requests (400), Xet (404; set
``HF_HUB_DISABLE_XET=1``), discussions, buckets, jobs (404).
"""
