"""Calibration: does the decomposition of a gain recover a cause that was planted?"""
