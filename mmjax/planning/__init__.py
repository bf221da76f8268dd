"""What a run would be on devices that one need not own: `python -m mmjax plan`."""
