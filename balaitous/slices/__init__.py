"""The slices model: COVID-19 and five kinds of lesion from one 2-D CT slice."""
