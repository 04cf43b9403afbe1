"""The admin site for what the record holds: people and settings can be changed, what people made only be read.

Nothing that a person made can be deleted here. Who is staff but no superuser sees the projects they manage and nothing
of others. A project's policy changes by promotion alone.
"""

from django.contrib import admin

from feedback.admin import evidence, models_and_prompts, projects  # noqa: F401 - each registers its pages

admin.site.site_header = "Nestbox"
admin.site.site_title = "Nestbox"
admin.site.index_title = "Everything else"
