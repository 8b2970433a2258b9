"""Which networks the predictors learn from."""
