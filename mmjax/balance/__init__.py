"""Balance between modalities and between tasks: parts of the train step that watch and modulate it, one file each."""
