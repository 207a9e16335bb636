"""`sightcheck bench capture`: what looking costs, ours and other tools' side by side."""
