"""What runs behind one call of `jaxcam.cam`, in the order of use."""
