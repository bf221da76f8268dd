"""What is wrong with a machine or a job before it trains, and how to mend it."""
