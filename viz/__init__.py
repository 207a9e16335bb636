"""Arrays in, figures out: matplotlib for papers, plotly for screens. Imports nothing of this project, and no torch."""
