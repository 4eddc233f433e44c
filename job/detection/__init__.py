"""Object detection without Paddle: boxes, annotations, mean average precision, augmentation."""
