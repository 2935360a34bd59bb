"""`python -m kvstore.server` is `kvnode`."""

from kvstore.server.main import main

if __name__ == "__main__":
    main()
