"""What is known of a trained model before anything is tuned."""
