"""Surface normals in camera axes."""
