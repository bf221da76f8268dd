"""What every other package stands on: types, trees, errors, config and mesh."""
