"""The command `python -m lr_exp.dashboard`, implemented in `lr_exp.tracking.dashboard`."""

from runpy import run_module

if __name__ == "__main__":
    run_module("lr_exp.tracking.dashboard", run_name="__main__", alter_sys=True)
