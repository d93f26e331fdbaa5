"""UltraViCo: videos two to four times longer than the model was trained for."""
