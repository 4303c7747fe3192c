-- MLflow and Optuna each keep the version of their schema in a table of the same name, so
-- they cannot share a database.
CREATE DATABASE optuna;
