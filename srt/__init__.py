"""Scene Representation Transformers: the library behind the pipeline in `workflow/`."""
