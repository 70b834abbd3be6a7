"""Training of a classifier of 2-D pictures: a timm backbone with one linear layer to named outputs."""
