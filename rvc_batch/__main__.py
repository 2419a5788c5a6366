"""`python -m rvc_batch` is the command line."""

from rvc_batch.cli import main

if __name__ == "__main__":
    main()
