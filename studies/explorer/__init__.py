"""The Gradio views, one file each. They read run folders and call the public names of `probes`."""
