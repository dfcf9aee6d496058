"""Pictures with captions: WebDataset shards, and the icon sets that the shipped default is trained on."""
