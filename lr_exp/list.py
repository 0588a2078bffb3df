"""The command `python -m lr_exp.list`, implemented in `lr_exp.config.listing`."""

from runpy import run_module

if __name__ == "__main__":
    run_module("lr_exp.config.listing", run_name="__main__", alter_sys=True)
