"""From a video of a walk to the silhouettes of one person: decoding, segmentation, tracking."""
