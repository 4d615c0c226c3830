"""Silhouettes of one walk from a video, mask images or a pickle: `data_pipelines.video.walk.read_walk`."""
