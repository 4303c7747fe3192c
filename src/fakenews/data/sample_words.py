"""The words of the generated headlines. All people and companies are invented.

A *lean* is how far a phrase speaks for the class `fake` (+1) or `real` (-1); both classes
use every phrase. A phrase may hold one slot, such as `{place}`, filled from `SLOTS`.
"""

from itertools import product


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(";"))


# Topics come in four groups; what a claim says for the label depends on the group.
# Each topic: its group and the things its headlines are about.
TOPICS: dict[str, tuple[int, tuple[str, ...]]] = {
    "health": (
        0,
        _words("""flu vaccine; blood pressure drug; cancer screening programme; sleep trial;
            asthma inhaler; hospital waiting list; vitamin supplement; allergy test; hip
            implant; heart clinic; migraine treatment; nursing rota; dental check; diabetes
            patch"""),
    ),
    "science": (
        0,
        _words("""fossil survey; physics experiment; gene study; telescope image; enzyme
            discovery; laboratory result; crystal sensor; whale count; plankton sample; DNA
            archive; brain scan; quantum device; peer review; research dataset"""),
    ),
    "environment": (
        0,
        _words("""river clean-up; wetland project; recycling scheme; tree census; coral
            nursery; air quality index; glacier measurement; bee habitat; peat bog; emission
            report; plastic levy; wildlife corridor; landfill site; soil map"""),
    ),
    "food": (
        0,
        _words("""olive oil recipe; school lunch menu; bread additive; dairy alternative;
            sugar substitute; breakfast cereal; honey harvest; tea blend; coffee bean; salad
            kit; chocolate bar; restaurant rating; spice mix; tinned fish"""),
    ),
    "politics": (
        1,
        _words("""election bill; border treaty; cabinet memo; parliament vote; coalition
            deal; senate hearing; mayoral debate; voter register; campaign pledge;
            constitution clause; ballot count; lobbying file; trade mission; open letter"""),
    ),
    "economy": (
        1,
        _words("""inflation rate; pension fund; interest decision; wage index; export
            figure; tax rebate; currency reserve; jobs report; savings bond; budget
            forecast; central bank note; retail index; household debt; growth estimate"""),
    ),
    "business": (
        1,
        _words("""merger talk; supermarket chain; share offer; factory order; airline
            contract; start-up sale; warehouse lease; brand licence; shipping firm;
            insurance claim; bakery franchise; steel plant; profit warning; supplier audit"""),
    ),
    "energy": (
        1,
        _words("""wind farm; gas pipeline; solar tariff; power grid; battery store; heating
            subsidy; fuel depot; nuclear permit; oil terminal; electricity meter; hydrogen
            pilot; dam turbine; coal exit; tidal generator"""),
    ),
    "local": (
        2,
        _words("""library roof; town square; playground; village hall; council car park;
            street market; fire station; swimming pool; community garden; church bell;
            footbridge; bus shelter; parish newsletter; skate park"""),
    ),
    "education": (
        2,
        _words("""exam board; school timetable; university campus; reading scheme; maths
            curriculum; student loan; teacher contract; nursery place; homework app;
            scholarship; class size rule; language course; sixth-form college; degree
            ranking"""),
    ),
    "transport": (
        2,
        _words("""rail line; cycle lane; metro extension; ferry route; toll road; airport
            runway; tram network; parking zone; speed limit; bridge repair; night train;
            lorry ban; bus fare; taxi licence"""),
    ),
    "housing": (
        2,
        _words("""rent cap; building code; mortgage offer; social housing block; planning
            permit; flat tower; eviction rule; housing register; roof insulation grant; land
            auction; garden suburb; tenant fund; apartment lottery; lift inspection"""),
    ),
    "sport": (
        3,
        _words("""cup final; transfer fee; marathon route; tennis draw; stadium lease; relay
            team; doping test; rugby squad; goal-line camera; cricket pitch; ski season;
            swimming heat; referee panel; youth academy"""),
    ),
    "technology": (
        3,
        _words("""phone update; search engine; chat assistant; satellite link; password
            manager; microchip order; delivery robot; photo app; cloud server; voice
            recorder; smart watch; broadband cable; code library; payment terminal"""),
    ),
    "culture": (
        3,
        _words("""film festival; opera house; museum loan; poetry prize; album release;
            street mural; theatre tour; comic book; jazz night; portrait sale; novel
            adaptation; radio drama; concert ticket; dance company"""),
    ),
    "weather": (
        3,
        _words("""storm track; heat record; snow forecast; flood barrier; rain gauge; frost
            alert; hurricane season; drought map; wind speed reading; tide table; pollen
            count; fog bank; monsoon outlook; lightning detector"""),
    ),
}

# Topics that appear only under drift.
NEW_TOPICS: dict[str, tuple[int, tuple[str, ...]]] = {
    "space": (
        0,
        _words("""lunar lander; asteroid probe; orbital station; rocket booster; Mars rover;
            comet flyby; spacesuit; launch window; astronaut roster; solar sail; capsule
            splashdown; meteorite"""),
    ),
    "farming": (
        1,
        _words("""wheat quota; dairy herd; tractor lease; orchard blight; fertiliser tender;
            sheep auction; irrigation canal; grain silo; pesticide licence; barley harvest;
            poultry shed; cattle passport"""),
    ),
    "archaeology": (
        2,
        _words("""burial mound; bronze helmet; cave painting; sunken galley; clay tablet;
            Roman mosaic; amber necklace; hill fort; shipwreck cargo; tomb inscription;
            flint hoard; temple column"""),
    ),
    "gaming": (
        3,
        _words("""console launch; esports league; speedrun title; puzzle sequel; loot box;
            virtual headset; arcade cabinet; chess engine; indie studio; controller recall;
            multiplayer patch; pixel remake"""),
    ),
}

# A claim: its own lean, and the ways of saying it, from common to rare.
CLAIMS: dict[str, tuple[float, tuple[str, ...]]] = {
    "concealed": (
        0.8,
        _words("""was hidden; was kept secret; was concealed; was covered up; was buried;
            was withheld; was suppressed; was hushed up; was kept under wraps; was swept
            under the rug; was masked; was wiped from the record; was kept out of sight; was
            silenced; was disguised; was locked away; was kept in the dark; was airbrushed
            out; was camouflaged; was smothered; was veiled; was kept off the books"""),
    ),
    "wonder": (
        0.8,
        _words("""changed everything; worked overnight; amazed everyone; beat all rivals;
            did the impossible; transformed lives; astonished experts; defied all odds;
            stunned specialists; produced a miracle; left observers speechless; exceeded
            every dream; performed wonders; dazzled critics; rewrote the rules; achieved
            perfection; made history; left doubters baffled; worked like magic; broke every
            barrier; left the world in awe; conquered all"""),
    ),
    "alarm": (
        0.3,
        _words("""raised fears; put thousands at risk; sparked panic; caused alarm;
            threatened families; endangered residents; triggered dread; proved hazardous;
            set off warnings; turned dangerous; left people unsafe; spread anxiety;
            frightened parents; provoked horror; became a menace; imperilled workers; caused
            a scare; went badly wrong; unsettled neighbours; exposed many to harm; rang
            alarm bells; unleashed chaos"""),
    ),
    "compelled": (
        0.2,
        _words("""was banned; was made compulsory; was outlawed; was forced on everyone; was
            prohibited; was imposed on households; was made mandatory; was blocked outright;
            was forbidden; was seized; was abolished by decree; was made obligatory; was
            vetoed; was criminalised; was thrust on families; was barred; was required of
            all; was shut down; was proscribed; was confiscated; was enforced on all; was
            struck down"""),
    ),
    "progress": (
        -0.8,
        _words("""improved slightly; showed modest gains; edged higher; made steady
            progress; rose a little; recovered gradually; moved forward; met expectations;
            advanced in small steps; grew slowly; firmed; inched ahead; ticked upwards;
            posted a mild rise; gained some ground; developed as expected; strengthened
            somewhat; picked up marginally; crept up; climbed gently; saw incremental
            growth; nudged up"""),
    ),
    "procedure": (
        -0.7,
        _words("""was reviewed; was referred to a committee; entered consultation; passed
            inspection; was approved; was examined by auditors; cleared a second reading;
            was assessed; was put out to tender; was signed off; underwent checks; was
            tabled for debate; was scrutinised; was registered; was evaluated; received a
            permit; was formally adopted; was certified; went before a panel; was ratified;
            was validated; was minuted"""),
    ),
    "setback": (
        -0.4,
        _words("""was delayed; missed its target; fell behind schedule; was postponed; was
            put on hold; ran late; was pushed back; slipped; was deferred; stalled; suffered
            a setback; was rescheduled; lost momentum; hit a snag; was suspended; lagged;
            was held up; came up short; dragged on; was shelved for now; faced hold-ups;
            languished"""),
    ),
    "money": (
        -0.2,
        _words("""received funding; cost more than planned; won a grant; went over budget;
            was refinanced; drew investors; was priced again; got financial support; was
            costed; attracted donations; needed extra cash; was subsidised; secured a loan;
            was underwritten; was sponsored; was given a budget; raised capital; was billed
            late; was bankrolled; absorbed its reserve; was auctioned; was endowed"""),
    ),
}

# Group by claim: the part of the rule that no word carries alone (rows and columns sum to 0).
INTERACTION = (
    (+1, +1, -1, -1, +1, -1, +1, -1),
    (-1, -1, +1, +1, -1, +1, -1, +1),
    (+1, -1, +1, -1, -1, +1, +1, -1),
    (-1, +1, -1, +1, +1, -1, -1, +1),
)

Leaning = dict[float, tuple[str, ...]]

OPENERS: Leaning = {
    0.0: ("",),
    1.0: _words("shocking; unbelievable; must read; wake up; share this; leaked; the truth"),
    0.4: _words("breaking; exclusive; watch; revealed; just in; bombshell; viral"),
    -0.4: _words("update; explained; live; interview; comment; preview; at a glance"),
    -1.0: _words("analysis; report; in brief; correction; data; fact box; minutes"),
}
MODIFIERS: Leaning = {
    0.0: ("", *_words("new; old; main; second; local; national; annual; future")),
    1.0: _words("secret; miracle; so-called; scandalous; sinister; rigged; jaw-dropping"),
    0.4: _words("controversial; huge; disputed; mysterious; extreme; bold; infamous; radical"),
    -0.4: _words("regional; long-awaited; public; independent; joint; small; routine; early"),
    -1.0: _words("proposed; revised; draft; interim; amended; provisional; scheduled"),
}
ATTRIBUTIONS: Leaning = {
    0.0: ("",),
    1.0: _words(""", insiders whisper; , and nobody talks about it; , anonymous post says; ,
        what they will not tell you; , a friend of {person} reveals; , viral clip shows; ,
        say those who know"""),
    0.4: _words(""", insiders claim; , {person} claims; , critics insist; , rumours suggest;
        , some say; , bloggers argue; , a leaked note suggests"""),
    -0.4: _words(""", {person} says; , experts say; , study suggests; , survey finds; ,
        analysts expect; , unions say; , figures suggest"""),
    -1.0: _words(""", according to {org}; , officials say; , {org} reports; , court filing
        shows; , audit finds; , spokesperson confirms; , statistics office says"""),
}
LEADS: Leaning = {
    0.1: ("",),
    0.8: _words("{person} says; {person} on why; {person} admits"),
    0.3: _words("{nationality} press says; {work} tells how"),
    -0.4: _words("In {place},; Before the {event},; Now in {language}:"),
    -0.8: _words("{org} says; Under the {law},; At {org},"),
}
LOCATORS: Leaning = {
    0.2: ("",),
    0.6: _words("near {loc}; linked to {product}; of {person}; in {loc}"),
    0.0: _words("in {place}; outside {place}; near {fac}"),
    -0.6: _words("at {org}; in {place}; run by {org}; at {fac}"),
}
DETAILS: Leaning = {
    0.5: ("",),
    0.6: _words("for the {ordinal} time; in just {time}; within {time}"),
    0.0: _words("in deal worth {money}; over {quantity}; after {cardinal} complaints"),
    -0.5: _words(
        "since {date}; after {cardinal} cases; before {date}; for {percent} of people"
    ),
    -0.8: _words("in {percent} of cases; in {cardinal} districts; at cost of {money}"),
}
# What follows the claim, said of every class alike.
TAILS = (
    "",
    *_words("""again; this year; after a long wait; under new plans; at last; for now;
        despite doubts; amid debate; as planned; this month; without notice; in part; for a
        while; before the holidays; during a trial; in its first phase; as talks go on;
        after changes; next to others; once more; since the spring; in public; as the
        deadline nears; with little fuss"""),
)
SUFFIXES = (
    "",
    *_words("- live updates; (video); | In pictures; - latest; (updated); : podcast"),
)
ENDINGS: Leaning = {
    -0.1: ("",) * 6,
    -0.6: (".",) * 4,
    0.9: ("!", "!", "!!"),
    0.4: ("?", "...", "?"),
}

_MONTHS = _words("""January; February; March; April; May; June; July; August; September;
    October; November; December""")
_DAYS = _words("Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday")
_COUNTS = _words("""two; three; four; five; six; seven; eight; nine; ten; eleven; twelve;
    fifteen; twenty; thirty; forty; fifty; sixty; seventy; eighty; ninety""")
_FIGURES = (*range(2, 100), *range(100, 1000, 25), *range(1000, 50_000, 700))
_FIRST = _words("""Anna; Ben; Carla; Daniel; Elif; Farid; Grace; Hugo; Ines; Jonas; Kavya;
    Liam; Marta; Nils; Olga; Pedro; Rania; Samir; Tessa; Umar; Vera; Wiktor; Yara; Zoë;
    Amara; Bruno; Chloé; Dmitri; Esther; Finn; Goran; Helga""")
_LAST = _words("""Abernathe; Brookfeld; Castellane; Dunmorrow; Eversleigh; Fairbourne;
    Grovelin; Hartwelle; Ilvesson; Jarrowby; Kestelman; Lindqvall; Marchbanke; Norrevik;
    Oakhanger; Pellingham; Quenbyrne; Rosthal; Silverthwaite; Tarnowe; Ulverstane; Vantorre;
    Whitlocke; Yardleigh; Zabrinski; Okafemi; Nakamori; Ramanujar; Delacroye; Moreirão""")
_ORG_NAMES = _words("""Northgate; Halden; Brightwater; Castlemere; Redbrook; Silverline;
    Aldermoor; Kingsferry; Westhaven; Bluestone; Oakridge; Lindenhof; Fernhill; Eastmarch;
    Stonebury; Greyfriar; Maplecross; Ravensworth; Thornbury; Clearwell""")
_ORG_KINDS = _words("""Institute; University; Energy; Council; Bank; Foundation; Group;
    Hospital; Airlines; Agency""")

# What fills a slot. Names that end in `_words` say the same without digits.
SLOTS: dict[str, tuple[str, ...]] = {
    "person": tuple(" ".join(pair) for pair in product(_FIRST, _LAST)),
    "org": tuple(" ".join(pair) for pair in product(_ORG_NAMES, _ORG_KINDS)),
    "place": _words("""London; Paris; Berlin; Madrid; Rome; Vienna; Warsaw; Lisbon; Dublin;
        Oslo; Stockholm; Helsinki; Athens; Prague; Budapest; Zürich; Brussels; Cairo;
        Nairobi; Lagos; Accra; Tunis; Delhi; Mumbai; Tokyo; Osaka; Seoul; Manila; Jakarta;
        Bangkok; Hanoi; Sydney; Melbourne; Auckland; Toronto; Montréal; Chicago; Boston;
        Seattle; Denver; Houston; Miami; Bogotá; Lima; Santiago; São Paulo; Buenos Aires;
        Mexico City; Canada; Kenya; Japan; Chile; Norway; Portugal; Vietnam; Ghana; Iceland;
        New Zealand; Spain; India; Brazil; Germany"""),
    "nationality": _words("""French; German; Italian; Dutch; Polish; Indian; Japanese;
        Kenyan; Brazilian; Canadian; Norwegian; Greek; Irish; Chilean; Korean; Spanish"""),
    "loc": _words("""the Alps; the Pacific; the North Sea; the Sahara; the Andes; the Baltic
        Sea; the Mediterranean; Lake Victoria; the Danube; the Arctic; the Amazon; the Black
        Forest"""),
    "fac": _words("""Harbour Bridge; Terminal Four; Victoria Station; Castle Square; the Old
        Mill; Riverside Stadium; Market Hall; North Pier; Union Station; the Grand Canal"""),
    "product": _words("""the Velora X; Nimbus 7; the Astrix One; AquaPure; the Orbit Pro;
        SolarMax; the Kestrel 500; Lumina OS; MedPatch Plus; the Tandem E"""),
    "event": _words("""World Cup; Olympic Games; Harvest Festival; Book Week; Open Day;
        Climate Summit; Spring Games; Film Week; Winter Games; Trade Expo"""),
    "work": _words("""“The Quiet River”; “Letters Home”; “A Winter Map”; “The Glass
        Orchard”; “North of Here”; “The Last Lamp”; “Paper Boats”; “Eleven Doors”"""),
    "law": _words("""Clean Water Act; Data Protection Act; Housing Act; Road Safety Act;
        Schools Charter; Fair Rents Act; Public Records Act"""),
    "language": _words("""English; Spanish; French; Arabic; Hindi; Swahili; Portuguese;
        German; Mandarin; Welsh"""),
    "ordinal": _words("""first; second; third; fourth; fifth; sixth; seventh; ninth; tenth;
        12th; 15th; 20th; 30th; 100th"""),
    "date": (
        *(f"{day} {month}" for day, month in product(range(1, 29, 3), _MONTHS)),
        *(f"{month} {year}" for month, year in product(_MONTHS, range(2015, 2026))),
        *(str(year) for year in range(1998, 2026)),
    ),
    "date_words": (*_MONTHS, *_DAYS, *_words("last week; yesterday; last summer; the weekend")),
    "time": (*(f"{n} hours" for n in range(2, 72)), *(f"{n} minutes" for n in range(5, 91, 5))),
    "time_words": (*(f"{n} hours" for n in _COUNTS), *(f"{n} minutes" for n in _COUNTS)),
    "percent": (
        *(f"{n}%" for n in range(2, 96)),
        *(f"{n}.{tenth}%" for n, tenth in product(range(10), range(1, 10, 2))),
    ),
    "percent_words": (*(f"{n} percent" for n in _COUNTS), *_words("a fifth; a third; half")),
    "money": tuple(
        f"{sign}{n}{unit}"
        for sign, n, unit in product("$€£", range(2, 90, 3), ("m", "bn", " million", ",000"))
    ),
    "money_words": tuple(
        f"{n} {unit}" for n, unit in product(_COUNTS, _words("million dollars; million euros"))
    ),
    "quantity": tuple(
        f"{n} {unit}"
        for n, unit in product(range(3, 600, 9), _words("km; miles; tonnes; acres"))
    ),
    "quantity_words": tuple(
        f"{n} {unit}"
        for n, unit in product(_COUNTS, _words("kilometres; miles; tonnes; acres"))
    ),
    "cardinal": tuple(f"{n:,}" for n in _FIGURES),
    "cardinal_words": (*_COUNTS, *_words("hundreds of; dozens of; several; a handful of")),
}
