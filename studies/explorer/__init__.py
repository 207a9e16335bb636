"""The Gradio views, one file each. They read run folders and call the public names of `probes`."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by Gradio as it is imported
