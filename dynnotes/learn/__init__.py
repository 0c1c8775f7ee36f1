"""How decisions are learned: estimators, budgets, and the training that turns them into evidence."""
