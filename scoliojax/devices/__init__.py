"""Devices and processes: one mesh for the batch, and how several processes act as one."""
