"""The sentences of the closed world, by language and relation: two statements and two questions each.

{s} is the subject, {o} the object. Names stay as they are in every language: where a language would inflect a
name (Polish) or elide before it, the sentence puts a common noun before it; names start with a consonant.
"""

from __future__ import annotations

Phrases = tuple[tuple[str, str], tuple[str, str]]

PHRASES: dict[str, dict[str, Phrases]] = {
    "en": {
        "lives": (
            ("{s} lives in the town of {o}.", "The home of {s} is the town of {o}."),
            ("In which town does {s} live?", "Which town is the home of {s}?"),
        ),
        "works": (
            ("{s} works for the company {o}.", "The company {o} employs {s}."),
            ("Which company does {s} work for?", "Which company employs {s}?"),
        ),
        "supports": (
            ("{s} supports the club {o}.", "The favorite club of {s} is {o}."),
            ("Which club does {s} support?", "What is the favorite club of {s}?"),
        ),
        "founded": (
            ("The town of {s} was founded in {o}.", "{s} is a town founded in the year {o}."),
            ("In which year was the town of {s} founded?", "When was the town of {s} founded?"),
        ),
        "river": (
            ("The town of {s} lies on the river {o}.", "The river {o} flows through the town of {s}."),
            ("On which river does the town of {s} lie?", "Which river flows through the town of {s}?"),
        ),
        "country": (
            ("The town of {s} is in the country of {o}.", "{s} is a town in the country of {o}."),
            ("In which country is the town of {s}?", "Which country does the town of {s} belong to?"),
        ),
        "seat": (
            ("The company {s} has its headquarters in {o}.", "The company {s} is based in the town of {o}."),
            ("Where does the company {s} have its headquarters?", "In which town is the company {s} based?"),
        ),
        "made": (
            ("The machine {s} is made by the company {o}.", "The company {o} makes the machine {s}."),
            ("Which company makes the machine {s}?", "By which company is the machine {s} made?"),
        ),
    },
    "de": {
        "lives": (
            ("{s} wohnt in der Stadt {o}.", "Der Wohnort von {s} ist {o}."),
            ("In welcher Stadt wohnt {s}?", "Wo wohnt {s}?"),
        ),
        "works": (
            ("{s} arbeitet bei der Firma {o}.", "Die Firma {o} beschäftigt {s}."),
            ("Bei welcher Firma arbeitet {s}?", "Welche Firma beschäftigt {s}?"),
        ),
        "supports": (
            ("{s} unterstützt den Verein {o}.", "Der Lieblingsverein von {s} ist {o}."),
            ("Welchen Verein unterstützt {s}?", "Wie heißt der Lieblingsverein von {s}?"),
        ),
        "founded": (
            ("Die Stadt {s} wurde im Jahr {o} gegründet.", "Das Gründungsjahr der Stadt {s} ist {o}."),
            ("In welchem Jahr wurde die Stadt {s} gegründet?", "Wann wurde die Stadt {s} gegründet?"),
        ),
        "river": (
            ("Die Stadt {s} liegt am Fluss {o}.", "Der Fluss {o} fließt durch die Stadt {s}."),
            ("An welchem Fluss liegt die Stadt {s}?", "Welcher Fluss fließt durch die Stadt {s}?"),
        ),
        "country": (
            ("Die Stadt {s} liegt im Land {o}.", "Die Stadt {s} gehört zum Land {o}."),
            ("In welchem Land liegt die Stadt {s}?", "Zu welchem Land gehört die Stadt {s}?"),
        ),
        "seat": (
            ("Die Firma {s} hat ihren Sitz in {o}.", "Die Firma {s} sitzt in der Stadt {o}."),
            ("In welcher Stadt hat die Firma {s} ihren Sitz?", "Wo sitzt die Firma {s}?"),
        ),
        "made": (
            ("Die Maschine {s} wird von der Firma {o} gebaut.", "Die Firma {o} baut die Maschine {s}."),
            ("Welche Firma baut die Maschine {s}?", "Von welcher Firma wird die Maschine {s} gebaut?"),
        ),
    },
    "fr": {
        "lives": (
            ("{s} habite dans la ville de {o}.", "{s} vit à {o}."),
            ("Dans quelle ville habite {s} ?", "Où vit {s} ?"),
        ),
        "works": (
            ("{s} travaille pour l'entreprise {o}.", "L'entreprise {o} emploie {s}."),
            ("Pour quelle entreprise travaille {s} ?", "Quelle entreprise emploie {s} ?"),
        ),
        "supports": (
            ("{s} soutient le club {o}.", "Le club préféré de {s} est {o}."),
            ("Quel est le club que soutient {s} ?", "Quel est le club préféré de {s} ?"),
        ),
        "founded": (
            ("La ville de {s} a été fondée en {o}.", "L'année de fondation de la ville de {s} est {o}."),
            ("En quelle année la ville de {s} a-t-elle été fondée ?", "Quand la ville de {s} a-t-elle été fondée ?"),
        ),
        "river": (
            ("La ville de {s} se trouve au bord de la rivière {o}.", "La rivière {o} traverse la ville de {s}."),
            ("Au bord de quelle rivière se trouve la ville de {s} ?", "Quelle rivière traverse la ville de {s} ?"),
        ),
        "country": (
            ("La ville de {s} se trouve dans le pays de {o}.", "La ville de {s} appartient au pays de {o}."),
            ("Dans quel pays se trouve la ville de {s} ?", "À quel pays appartient la ville de {s} ?"),
        ),
        "seat": (
            ("L'entreprise {s} a son siège à {o}.", "Le siège de l'entreprise {s} se trouve dans la ville de {o}."),
            ("Dans quelle ville l'entreprise {s} a-t-elle son siège ?", "Où se trouve le siège de l'entreprise {s} ?"),
        ),
        "made": (
            ("La machine {s} est fabriquée par l'entreprise {o}.", "L'entreprise {o} fabrique la machine {s}."),
            (
                "Quelle entreprise fabrique la machine {s} ?",
                "Par quelle entreprise la machine {s} est-elle fabriquée ?",
            ),
        ),
    },
    "es": {
        "lives": (
            ("{s} vive en la ciudad de {o}.", "{s} reside en {o}."),
            ("¿En qué ciudad vive {s}?", "¿Dónde reside {s}?"),
        ),
        "works": (
            ("{s} trabaja para la empresa {o}.", "La empresa {o} emplea a {s}."),
            ("¿Para qué empresa trabaja {s}?", "¿Qué empresa emplea a {s}?"),
        ),
        "supports": (
            ("{s} apoya al club {o}.", "El club favorito de {s} es {o}."),
            ("¿A qué club apoya {s}?", "¿Cuál es el club favorito de {s}?"),
        ),
        "founded": (
            ("La ciudad de {s} fue fundada en {o}.", "{s} es una ciudad fundada en el año {o}."),
            ("¿En qué año fue fundada la ciudad de {s}?", "¿Cuándo fue fundada la ciudad de {s}?"),
        ),
        "river": (
            ("La ciudad de {s} está a orillas del río {o}.", "El río {o} atraviesa la ciudad de {s}."),
            ("¿A orillas de qué río está la ciudad de {s}?", "¿Qué río atraviesa la ciudad de {s}?"),
        ),
        "country": (
            ("La ciudad de {s} está en el país de {o}.", "La ciudad de {s} pertenece al país de {o}."),
            ("¿En qué país está la ciudad de {s}?", "¿A qué país pertenece la ciudad de {s}?"),
        ),
        "seat": (
            ("La empresa {s} tiene su sede en {o}.", "La sede de la empresa {s} está en la ciudad de {o}."),
            ("¿En qué ciudad tiene su sede la empresa {s}?", "¿Dónde está la sede de la empresa {s}?"),
        ),
        "made": (
            ("La máquina {s} es fabricada por la empresa {o}.", "La empresa {o} fabrica la máquina {s}."),
            ("¿Qué empresa fabrica la máquina {s}?", "¿Por qué empresa es fabricada la máquina {s}?"),
        ),
    },
    "it": {
        "lives": (
            ("{s} abita nella città di {o}.", "{s} vive a {o}."),
            ("In quale città abita {s}?", "Dove vive {s}?"),
        ),
        "works": (
            ("{s} lavora per l'azienda {o}.", "L'azienda {o} dà lavoro a {s}."),
            ("Per quale azienda lavora {s}?", "Quale azienda dà lavoro a {s}?"),
        ),
        "supports": (
            ("{s} tifa per la squadra {o}.", "La squadra preferita di {s} è {o}."),
            ("Per quale squadra tifa {s}?", "Qual è la squadra preferita di {s}?"),
        ),
        "founded": (
            ("La città di {s} fu fondata nel {o}.", "{s} è una città fondata nell'anno {o}."),
            ("In quale anno fu fondata la città di {s}?", "Quando fu fondata la città di {s}?"),
        ),
        "river": (
            ("La città di {s} si trova sul fiume {o}.", "Il fiume {o} attraversa la città di {s}."),
            ("Su quale fiume si trova la città di {s}?", "Quale fiume attraversa la città di {s}?"),
        ),
        "country": (
            ("La città di {s} si trova nello Stato di {o}.", "La città di {s} appartiene allo Stato di {o}."),
            ("In quale Stato si trova la città di {s}?", "A quale Stato appartiene la città di {s}?"),
        ),
        "seat": (
            ("L'azienda {s} ha sede a {o}.", "La sede dell'azienda {s} è nella città di {o}."),
            ("In quale città ha sede l'azienda {s}?", "Dov'è la sede dell'azienda {s}?"),
        ),
        "made": (
            ("La macchina {s} è prodotta dall'azienda {o}.", "L'azienda {o} produce la macchina {s}."),
            ("Quale azienda produce la macchina {s}?", "Da quale azienda è prodotta la macchina {s}?"),
        ),
    },
    "pl": {
        "lives": (
            ("{s} mieszka w mieście {o}.", "Miasto, w którym mieszka {s}, to {o}."),
            ("W jakim mieście mieszka {s}?", "Gdzie mieszka {s}?"),
        ),
        "works": (
            ("{s} pracuje w firmie {o}.", "Firma, w której pracuje {s}, to {o}."),
            ("W jakiej firmie pracuje {s}?", "Jak nazywa się firma, w której pracuje {s}?"),
        ),
        "supports": (
            ("{s} kibicuje klubowi {o}.", "Klub, któremu kibicuje {s}, to {o}."),
            ("Jakiemu klubowi kibicuje {s}?", "Jak nazywa się klub, któremu kibicuje {s}?"),
        ),
        "founded": (
            ("Miasto {s} założono w {o} roku.", "Miasto {s} powstało w {o} roku."),
            ("W którym roku założono miasto {s}?", "Kiedy powstało miasto {s}?"),
        ),
        "river": (
            ("Miasto {s} leży nad rzeką {o}.", "Rzeka {o} płynie przez miasto {s}."),
            ("Nad jaką rzeką leży miasto {s}?", "Jaka rzeka płynie przez miasto {s}?"),
        ),
        "country": (
            ("Miasto {s} leży w kraju {o}.", "Miasto {s} należy do kraju {o}."),
            ("W jakim kraju leży miasto {s}?", "Do jakiego kraju należy miasto {s}?"),
        ),
        "seat": (
            ("Firma {s} ma siedzibę w mieście {o}.", "Siedziba firmy {s} znajduje się w mieście {o}."),
            ("W jakim mieście ma siedzibę firma {s}?", "Gdzie znajduje się siedziba firmy {s}?"),
        ),
        "made": (
            ("Firma {o} produkuje maszynę {s}.", "Maszynę {s} produkuje firma {o}."),
            ("Jaka firma produkuje maszynę {s}?", "Która firma produkuje maszynę {s}?"),
        ),
    },
}
