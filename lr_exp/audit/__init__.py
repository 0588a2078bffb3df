"""The audit of the labels: is the label's token followed by a right answer more often?"""
